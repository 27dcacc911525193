-- Every reported flight is counted exactly once, by carrier, by route and by airport.
with counted as (
    select 'flights' as counted_in, flight_date, count(*) as flights
    from {{ ref('fct_flights') }}
    where is_reported and {{ outcome_days('flight_date') }}
    group by flight_date
    {%- for name in ['carrier', 'route', 'airport'] %}
    union all
    select '{{ name }}' as counted_in, flight_date, sum(flights) as flights
    from {{ ref('daily_delays_by_' ~ name) }}
    where {{ outcome_days('flight_date') }}
    group by flight_date
    {%- endfor %}
)

select flight_date, count(*) as countings, min(flights) as fewest, max(flights) as most
from counted
group by flight_date
having count(*) <> 4 or min(flights) <> max(flights)
