--! schedule: cron 0 25 * * *
--! schedule: hourly
--! sheduled: on_change 10s
--! shared: yes
--! cluster_by: id, Day
--! nothing
-- description: this sets nothing
select * from silver.orders
