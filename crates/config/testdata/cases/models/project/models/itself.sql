select * from gold.itself
