select
    {{ flight_id() }} as flight_id,
    flight_date,
    scheduled_departure,
    carrier,
    flight_number,
    tail_number,
    origin,
    destination,
    scheduled_departure_time,
    scheduled_arrival_time,
    distance_miles
from {{ source('bronze', 'flight_schedule') }}
