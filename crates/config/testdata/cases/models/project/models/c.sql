select * from gold.a join silver.ordres using (id)
