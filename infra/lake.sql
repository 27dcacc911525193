-- The database `lake`: who may write which table, and the numbers of releases.

create table if not exists writer_tokens (
    table_name text primary key,
    token bigint not null
);

create sequence if not exists release_id;
