select
    station,
    observation_date as day,
    precipitation_mm > 0 as rained
from {{ ref('stg_seattle_weather') }}
where {{ outcome_days('observation_date') }}
