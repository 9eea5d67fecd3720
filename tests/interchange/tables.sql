-- Old rows by their key alone; large values that are often left alone.
CREATE TABLE public.moves (
    id int, code text, note text NOT NULL, body text, raw bytea, doc jsonb, words text[],
    at timestamptz, day date, price numeric(12,2) NOT NULL,
    PRIMARY KEY (id, code)
);
ALTER TABLE public.moves ALTER body SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL,
    ALTER words SET STORAGE EXTERNAL;

-- The same, old rows whole.
CREATE TABLE public.whole (LIKE public.moves INCLUDING ALL);
ALTER TABLE public.whole REPLICA IDENTITY FULL;

CREATE TABLE public.gone (id int PRIMARY KEY, note text);

CREATE TABLE public.keyless (id int, note text, body text);
ALTER TABLE public.keyless ALTER body SET STORAGE EXTERNAL;
ALTER TABLE public.keyless REPLICA IDENTITY FULL;
