select * from gold.waits
