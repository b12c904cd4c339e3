select * from silver.inside
