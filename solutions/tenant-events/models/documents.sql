--! description: Documents that exist, as their last event left them
--! schedule: on_change 1s
--! shared: true
--! cluster_by: document_id
select
    tenant_id,
    document_id,
    last_value(document_title order by _source_offset) filter (where document_title is not null) as title,
    last_value(document_type order by _source_offset) filter (where document_type is not null) as type,
    last_value(pages order by _source_offset) filter (where pages is not null) as pages,
    sum(case when event_type = 'document.updated' then 1 else 0 end) as updates
from silver.document_events
group by tenant_id, document_id
having last_value(event_type order by _source_offset) <> 'document.deleted'
