--! shared: true
select * from silver.inside join silver.orders using (id)
