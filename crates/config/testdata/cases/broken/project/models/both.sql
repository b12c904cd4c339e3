-- Only what is broken is reported, not what reads it.
select * from silver.orders join silver.users using (id)
