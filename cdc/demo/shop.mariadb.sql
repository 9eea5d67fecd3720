-- MariaDB does not log what a foreign key cascades, so the key of a product that is pointed at by
-- others has none here: the shop changes all three tables itself.
create table customers (
    id bigint auto_increment primary key,
    full_name varchar(200) not null,
    email varchar(200) not null unique,
    phone varchar(40),
    address json not null,
    loyalty_points integer not null default 0,
    created_at timestamp(6) not null default current_timestamp(6)
);
create table products (
    sku varchar(40) primary key,
    name varchar(200) not null,
    price decimal(10,2) not null check (price > 0),
    tags set('kitchen','living','gift','new','sale','outdoor','office','handmade') not null,
    weight_kg float,
    available varchar(40),
    updated_at timestamp(6) not null default current_timestamp(6)
);
create table inventory (
    sku varchar(40) primary key,
    on_hand integer not null,
    reserved integer not null default 0
);
create table orders (
    id bigint auto_increment primary key,
    customer_id bigint not null references customers (id),
    status varchar(20) not null default 'new',
    total decimal(12,2) not null default 0,
    gift_note text,
    placed_at timestamp(6) not null default current_timestamp(6),
    shipped_on date
);
create table order_items (
    order_id bigint not null references orders (id),
    line smallint not null,
    sku varchar(40) not null,
    quantity integer not null,
    unit_price decimal(10,2) not null,
    primary key (order_id, line),
    index (sku)
);
