with months as (
    select
        cast(date_trunc('month', flight_date) as date) as month,
        carrier,
        cast(sum(flights) as int) as flights,
        cast(sum(arrived_flights - late_flights) as int) as on_time_flights,
        cast(sum(late_flights) as int) as late_flights,
        cast(sum(cancelled_flights) as int) as cancelled_flights,
        cast(sum(diverted_flights) as int) as diverted_flights,
        sum(arrived_flights - late_flights) / sum(flights) as on_time_rate,
        sum(cancelled_flights) / sum(flights) as cancellation_rate,
        sum(arrival_delay_minutes_total) / nullif(sum(arrived_flights), 0) as mean_arrival_delay_minutes
    from {{ ref('daily_delays_by_carrier') }}
    group by 1, 2
)

select
    months.*,
    rank() over (partition by month order by on_time_rate desc) as league_rank,
    airlines.carrier_name
from months
left join {{ ref('stg_airlines') }} as airlines using (carrier)
