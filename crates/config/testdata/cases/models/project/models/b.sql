-- a comment that says: from silver.nowhere
with w as (select * from gold.c) select 'from silver.x' as x from w
