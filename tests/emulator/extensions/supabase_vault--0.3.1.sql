-- Stand-in for Supabase Vault (https://github.com/supabase/vault): the same SQL surface.
-- It STORES SECRETS IN BASE64, WITHOUT A KEY, which is good enough for tokens that a laptop makes up for itself, and for
-- nothing else. As with the real one, `secret` is of no use without the right to call the function that decrypts it.

-- What the real one has in C.
create function vault._crypto_aead_det_encrypt(message text) returns text
language sql immutable strict set search_path = ''
return encode(convert_to(message, 'UTF8'), 'base64');

create function vault._crypto_aead_det_decrypt(message text) returns text
language sql immutable set search_path = ''
return convert_from(decode(message, 'base64'), 'UTF8');

create table vault.secrets (
  id uuid primary key default gen_random_uuid(),
  name text,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea,
  created_at timestamptz not null default current_timestamp,
  updated_at timestamptz not null default current_timestamp
);
comment on table vault.secrets is 'Not encrypted: this is the local emulator''s stand-in.';
create unique index on vault.secrets (name) where name is not null;

create view vault.decrypted_secrets as
select
  id, name, description, secret, vault._crypto_aead_det_decrypt(secret) as decrypted_secret,
  key_id, nonce, created_at, updated_at
from vault.secrets;

-- SECURITY DEFINER, because role postgres may read and delete secrets, but writes them through these two only.
create function vault.create_secret(
  new_secret text,
  new_name text default null,
  new_description text default '',
  new_key_id uuid default null
) returns uuid
language sql security definer set search_path = ''
as $$
  insert into vault.secrets (secret, name, description)
  values (vault._crypto_aead_det_encrypt(new_secret), new_name, new_description)
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
  set secret = coalesce(vault._crypto_aead_det_encrypt(new_secret), s.secret),
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
