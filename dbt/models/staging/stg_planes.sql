select
    _interval as snapshot_date,
    tail_number,
    year_built,
    type as plane_type,
    manufacturer,
    model,
    engines,
    seats,
    cruising_speed_mph,
    engine as engine_type
from {{ source('bronze', 'planes') }}
