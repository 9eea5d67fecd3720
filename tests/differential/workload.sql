CREATE TYPE public.mood AS ENUM ('sad', 'it''s "ok"', 'ünï 😀');

-- Keyed by a number and a text, old rows by their key alone, a large value that is often left alone.
CREATE TABLE public.plain (
    id int, code text, small smallint, big bigint, price numeric(12,2), exact numeric, ratio float8,
    single real, flag boolean, name varchar(40), fixed character(6), note text, body text,
    at timestamp, atz timestamptz, day date, clock time, span interval, mark uuid, doc json,
    docb jsonb, raw bytea, list int[], words text[], feel public.mood, host inet,
    PRIMARY KEY (id, code)
);
ALTER TABLE public.plain ALTER body SET STORAGE EXTERNAL;

-- The same, old rows whole.
CREATE TABLE public.whole (LIKE public.plain INCLUDING ALL);
ALTER TABLE public.whole REPLICA IDENTITY FULL;

-- Known by another unique index than its primary key.
CREATE TABLE public.indexed (LIKE public.plain INCLUDING DEFAULTS INCLUDING STORAGE);
ALTER TABLE public.indexed ALTER id SET NOT NULL, ALTER code SET NOT NULL;
CREATE UNIQUE INDEX indexed_known ON public.indexed (code, id);
ALTER TABLE public.indexed REPLICA IDENTITY USING INDEX indexed_known;

-- No key at all.
CREATE TABLE public.keyless (LIKE public.plain INCLUDING DEFAULTS INCLUDING STORAGE);
ALTER TABLE public.keyless ALTER id DROP NOT NULL, ALTER code DROP NOT NULL;
ALTER TABLE public.keyless REPLICA IDENTITY FULL;

CREATE TABLE public.marker (id int PRIMARY KEY);
