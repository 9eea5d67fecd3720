create table customers (
    id bigint generated always as identity primary key,
    full_name text not null,
    email text not null unique,
    phone text,
    address jsonb not null,
    loyalty_points integer not null default 0,
    created_at timestamptz not null default now()
);
create table products (
    sku text primary key,
    name text not null,
    price numeric(10,2) not null check (price > 0),
    tags text[] not null default '{}',
    weight_kg real,
    available daterange,
    updated_at timestamptz not null default now()
);
create table inventory (
    sku text primary key references products on update cascade on delete cascade,
    on_hand integer not null,
    reserved integer not null default 0
);
create table orders (
    id bigint generated always as identity primary key,
    customer_id bigint not null references customers,
    status text not null default 'new',
    total numeric(12,2) not null default 0,
    gift_note text,
    placed_at timestamptz not null default now(),
    shipped_on date
);
create table order_items (
    order_id bigint not null references orders on delete cascade,
    line smallint not null,
    sku text not null references products on update cascade,
    quantity integer not null,
    unit_price numeric(10,2) not null,
    primary key (order_id, line)
);
create index on orders (customer_id);
create index on order_items (sku);
