select 1;
drop table silver.orders
