--! description: Webhooks per event type and repository
--! schedule: on_change 5s
--! shared: true
select
    tenant_id,
    event_type,
    repository,
    count(*) as events,
    count(distinct sender) as senders
from silver.webhooks
group by tenant_id, event_type, repository
