merge into gold.on_time_league as league
using (
    with latest as (
        select *, row_number() over (partition by carrier order by flight_date desc) as place
        from gold.daily_delays_by_carrier
    ),

    judged as (
        select
            latest.*,
            case when late_rate > 0.3 then late_flights else cancelled_flights end as troubled_flights
        from latest
        where place = 1
    )

    select judged.*, airlines.carrier_name
    from judged
    left join silver.stg_airlines as airlines using (carrier)
) as today
on league.carrier = today.carrier
when matched and today.flights > league.flights then update set
    flights = today.flights,
    on_time_rate = 1 - today.late_rate,
    league_rank = today.place,
    late_flights = today.troubled_flights
when not matched then insert (month, carrier, carrier_name, flights) values (
    trunc(today.flight_date, 'MM'),
    today.carrier,
    upper(today.carrier_name),
    today.arrived_flights + today.cancelled_flights
)
