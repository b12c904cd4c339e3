--! description: Events of each type and version, per tenant
--! schedule: on_change 1s
--! shared: true
--! cluster_by: event_type
select tenant_id, event_type, coalesce(schema_version, '1.0') as schema_version, count(*) as events
from (
    select tenant_id, event_type, schema_version from silver.organization_events
    union all select tenant_id, event_type, schema_version from silver.document_events
    union all select tenant_id, event_type, schema_version from silver.query_events
    union all select tenant_id, event_type, schema_version from silver.user_events
    union all select tenant_id, event_type, schema_version from silver.system_events
) as all_events
group by tenant_id, event_type, coalesce(schema_version, '1.0')
