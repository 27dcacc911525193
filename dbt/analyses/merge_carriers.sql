-- Each carrier with its last day and its worst, kept in a table of one's own.
merge into mine.carriers as known
using (
    with numbered as (
        select
            *,
            row_number() over (partition by carrier order by flight_date desc) as place,
            avg(late_rate) over (partition by carrier order by flight_date rows 6 preceding) as late_rate_of_week
        from gold.daily_delays_by_carrier
    ),

    latest as (
        select
            numbered.*,
            case when late_rate > 0.3 then late_flights else cancelled_flights end as troubled_flights
        from numbered
        where place = 1
    )

    select latest.*, airlines.carrier_name
    from latest
    left join silver.stg_airlines as airlines using (carrier)
) as today
on known.carrier = today.carrier
when matched and today.flight_date > known.flight_date then update set
    flight_date = today.flight_date,
    on_time_rate = 1 - today.late_rate,
    worst_late_rate = greatest(known.worst_late_rate, today.late_rate),
    late_rate_of_week = today.late_rate_of_week,
    troubled_flights = today.troubled_flights
when not matched then insert (
    carrier, carrier_name, flight_date, on_time_rate, worst_late_rate, late_rate_of_week, troubled_flights
) values (
    today.carrier,
    upper(today.carrier_name),
    today.flight_date,
    1 - today.late_rate,
    today.late_rate,
    today.late_rate_of_week,
    today.troubled_flights
)
