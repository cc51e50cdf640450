-- The bodies of a contender's calls, each once, as fast as wrk can: the limit of engine, sockets and machine.
--
--   wrk -t2 -c64 -d30s -s limit.lua http://127.0.0.1:PORT/v1/evaluations -- USERS_FILE THREADS SCOPE TYPE,TYPE TOKEN
--
-- USERS_FILE has a user id on each line. Every thread takes its share of the pairs. wrk knows only how long to send; when
-- all is sent, an empty request leaves a connection idle, and the benchmark ends wrk once the engine has counted all.

local numbered = 0

function setup(thread)
  thread:set("number", numbered)
  numbered = numbered + 1
end

function init(args)
  local threads, scope = tonumber(args[2]), args[3]
  types, mine, at = {}, {}, 0
  for name in args[4]:gmatch("[^,]+") do types[#types + 1] = name end
  local line = 0
  for user in io.lines(args[1]) do
    if line % threads == number then mine[#mine + 1] = user end
    line = line + 1
  end
  first = "POST /v1/evaluations HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " .. args[5]
    .. "\r\nContent-Type: application/json\r\nContent-Length: "
  opening = '{"invocation_id":"00000000-0000-0000-0000-000000000000","scheduled_for":"2026-01-01T02:00:00+00:00",'
    .. '"dry_run":false,"evaluations":[{"user_id":"'
  key = '"],"idempotency_key_prefix":"' .. scope .. ":"
  -- wrk asks the first thread for one request that it only looks at
  looked_at = number ~= 0
end

function request()
  if not looked_at then
    looked_at = true
    return first .. "2\r\n\r\n{}"
  end
  local user = mine[math.floor(at / #types) + 1]
  if not user then return "" end
  local name = types[at % #types + 1]
  at = at + 1
  local body = opening .. user .. '","scenario_types":["' .. name .. key .. user .. '"}]}'
  return first .. #body .. "\r\n\r\n" .. body
end
