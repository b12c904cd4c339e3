//! The PostgreSQL door as its clients meet it: psql, psycopg, and raw bytes.

mod catalog;
mod crowd;
mod differential;
mod drivers;
mod psql;
mod raw;
mod stage;
