select * from silver.orders
