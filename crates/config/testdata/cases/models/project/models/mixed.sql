--! shared: true
select id from gold.lots
