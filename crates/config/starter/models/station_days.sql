-- A model is one SELECT; its result becomes gold.<file name>. Lines with --! are settings.
--! description: Check-ins and mean temperature per station and day
--! schedule: on_change 5s
--! shared: true
--! cluster_by: station, day
-- A shared model serves every tenant its own rows, so it selects and groups by tenant_id.
select
    tenant_id,
    station,
    cast(checked_in_at as date) as day,
    count(*) as check_ins,
    count(distinct user_id) as users,
    avg(temp) as mean_temp,
    avg(temp_c) as mean_temp_c
from silver.checkins
group by tenant_id, station, cast(checked_in_at as date)
