--! description: How many queries of a tenant succeed, and how long they take
--! schedule: on_change 1s
--! shared: true
select
    tenant_id,
    count(*) as queries,
    sum(case when event_type = 'query.failed' then 1 else 0 end) as failed,
    avg(duration_ms) as average_ms
from silver.query_events
group by tenant_id
