"""The tables of a header store, as SQLite makes them.

`files` has a row for each file, whatever it is; `slices` one for each DICOM image in it; `commons` what many slices
have in common, as JSON; `studies` what became of them. `visit` is the number of the run that last came by.
"""

from __future__ import annotations

TABLES = """
create table meta (name text primary key, value text);
create table folders (id integer primary key, path text unique, visit integer);
create table files (folder integer, name text, size integer, changed integer, kind text, content text,
                    primary key (folder, name)) without rowid;
create table commons (id integer primary key, content text unique);
create table slices (study text, folder integer, name text, frame integer, series text, sop text, study_id text,
                     geometry blob, common integer);
create index slices_by_study on slices (study);
create index slices_by_file on slices (folder, name);
create table studies (study text primary key, fingerprint text, content text, visit integer);
"""
LISTS = """
create temp table changed (path text, size integer, changed integer);
create temp table rejected (path text, code text, detail text, scan_id text);
"""
