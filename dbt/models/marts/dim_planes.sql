{#- Type 2 history out of daily snapshots: a new version where an attribute changes or a plane comes back. -#}
{% set attributes = [
    'year_built', 'plane_type', 'manufacturer', 'model', 'engines', 'seats', 'cruising_speed_mph', 'engine_type'
] %}

with snapshots as (
    select
        snapshot_date,
        lag(snapshot_date) over (order by snapshot_date) as previous_snapshot,
        lead(snapshot_date) over (order by snapshot_date) as next_snapshot
    from (select distinct snapshot_date from {{ ref('stg_planes') }})
),

compared as (
    select
        *,
        struct({{ attributes | join(', ') }})
            is distinct from lag(struct({{ attributes | join(', ') }})) over by_day
            or previous_snapshot is distinct from lag(snapshot_date) over by_day as starts
    from {{ ref('stg_planes') }}
    join snapshots using (snapshot_date)
    window by_day as (partition by tail_number order by snapshot_date)
),

numbered as (
    select
        *,
        count_if(starts) over (partition by tail_number order by snapshot_date) as version
    from compared
)

select
    tail_number,
    {{ attributes | join(',\n    ') }},
    min(snapshot_date) as valid_from,
    max_by(next_snapshot, snapshot_date) as valid_to,
    max_by(next_snapshot, snapshot_date) is null as is_current
from numbered
group by tail_number, version, {{ attributes | join(', ') }}
