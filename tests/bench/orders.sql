create table orders (
    id bigint primary key, customer_id int not null, status text not null,
    amount numeric(12,2) not null, currency char(3) not null, note text, paid boolean,
    created_at timestamptz not null default now(), updated_at timestamp, attrs jsonb
);
