--! schedule: on_change soon
select * from orders, silver.later
