-- A plane has one version on any day, and at most one that is current.
select tail_number, valid_from, valid_to, next_from
from (
    select
        tail_number,
        valid_from,
        valid_to,
        is_current,
        lead(valid_from) over (partition by tail_number order by valid_from) as next_from
    from {{ ref('dim_planes') }}
)
where valid_to <= valid_from
    or (valid_to is null) <> is_current
    or next_from < valid_to
    or (next_from is not null and is_current)
