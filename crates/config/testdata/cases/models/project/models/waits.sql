select * from silver.later
