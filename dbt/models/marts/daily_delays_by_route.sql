select
    flight_date,
    origin,
    destination,
    {{ delay_measures() }}
from {{ ref('fct_flights') }}
where is_reported and {{ outcome_days('flight_date') }}
group by flight_date, origin, destination
