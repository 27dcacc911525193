-- A flight of the interval is once in the flight fact and once among the features.
select
    coalesce(flights.flight_id, features.flight_id) as flight_id,
    flights.flight_id is not null as is_in_flights,
    features.flight_id is not null as is_in_features
from (
    select flight_id from {{ ref('fct_flights') }}
    where flight_date between {{ interval_day('DBT_INTERVAL_START') }} and {{ interval_day('DBT_INTERVAL_END') }}
) as flights
full join (
    select flight_id from {{ ref('flight_delay_features') }}
    where flight_date between {{ interval_day('DBT_INTERVAL_START') }} and {{ interval_day('DBT_INTERVAL_END') }}
) as features
    on flights.flight_id = features.flight_id
where flights.flight_id is null or features.flight_id is null
