-- Stand-in for Supabase Vault (https://github.com/supabase/vault): the same SQL surface.
-- It STORES SECRETS IN BASE64, WITHOUT A KEY, which is good enough for tokens that a laptop makes up for itself, and for
-- nothing else. As with the real one, `secret` is of no use to whoever may not call the function that decrypts it.

-- What the real one has in C.
create function vault._crypto_aead_det_noncegen() returns bytea
language sql volatile set search_path = ''
return decode(replace(gen_random_uuid()::text, '-', ''), 'hex');

create function vault._crypto_aead_det_encrypt(
  message bytea, additional bytea, key_id bigint, context bytea default 'pgsodium', nonce bytea default null
) returns bytea
language sql immutable set search_path = ''
return message;

create function vault._crypto_aead_det_decrypt(
  message bytea, additional bytea, key_id bigint, context bytea default 'pgsodium', nonce bytea default null
) returns bytea
language sql immutable set search_path = ''
return message;

create table vault.secrets (
  id uuid primary key default gen_random_uuid(),
  name text,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea default vault._crypto_aead_det_noncegen(),
  created_at timestamptz not null default current_timestamp,
  updated_at timestamptz not null default current_timestamp
);
comment on table vault.secrets is 'Not encrypted: this is the local emulator''s stand-in.';
create unique index on vault.secrets (name) where name is not null;

create view vault.decrypted_secrets as
select
  id, name, description, secret,
  convert_from(
    vault._crypto_aead_det_decrypt(
      message => decode(secret, 'base64'), additional => convert_to(id::text, 'UTF8'), key_id => 0, nonce => nonce
    ),
    'UTF8'
  ) as decrypted_secret,
  key_id, nonce, created_at, updated_at
from vault.secrets;

-- The text of a new secret as it is stored.
create function vault._encrypted(secret_id uuid, plain text, nonce bytea) returns text
language sql immutable set search_path = ''
return encode(
  vault._crypto_aead_det_encrypt(
    message => convert_to(plain, 'UTF8'), additional => convert_to(secret_id::text, 'UTF8'), key_id => 0, nonce => nonce
  ),
  'base64'
);

-- SECURITY DEFINER, because role postgres may read and delete secrets, but writes them through these two only.
create function vault.create_secret(
  new_secret text,
  new_name text default null,
  new_description text default '',
  new_key_id uuid default null
) returns uuid
language sql security definer set search_path = ''
as $$
  with new as materialized (select gen_random_uuid() as id, vault._crypto_aead_det_noncegen() as nonce)
  insert into vault.secrets (id, secret, nonce, name, description)
  select id, vault._encrypted(id, new_secret, nonce), nonce, new_name, new_description from new
  returning id
$$;

create function vault.update_secret(
  secret_id uuid,
  new_secret text default null,
  new_name text default null,
  new_description text default null,
  new_key_id uuid default null
) returns void
language sql security definer set search_path = ''
as $$
  update vault.secrets as s
  set secret = coalesce(vault._encrypted(s.id, new_secret, s.nonce), s.secret),
      name = coalesce(new_name, s.name),
      description = coalesce(new_description, s.description),
      updated_at = now()
  where s.id = secret_id
$$;

revoke all on all functions in schema vault from public;

-- What Supabase adds when the extension is created. A view calls its functions with the rights of its reader.
grant usage on schema vault to postgres with grant option;
grant select, delete on vault.secrets, vault.decrypted_secrets to postgres with grant option;
grant execute on function vault.create_secret, vault.update_secret, vault._crypto_aead_det_decrypt
to postgres with grant option;
grant usage on schema vault to service_role;
grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
grant execute on function vault.create_secret, vault.update_secret, vault._crypto_aead_det_decrypt to service_role;
