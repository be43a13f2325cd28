"""The decision log: memory queue -> local spool -> Redis stream -> SQL, none of it on the request path."""
