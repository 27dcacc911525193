select
    flight_date,
    cast(count(*) as int) as flights
from {{ ref('fct_flights') }}
where {{ outcome_days('flight_date') }}
group by flight_date
