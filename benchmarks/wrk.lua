-- One kind of request, endlessly. Arguments: method, account path, token, container, objects (of GET, LIST and JSON), run.
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  kind, account, token, container = args[1], args[2], args[3], args[4]
  objects, run = tonumber(args[5]), args[6]
  made = 0
  math.randomseed(number + 1)
  headers = { ["X-Auth-Token"] = token }
  body = nil
  if kind == "PUT" then
    headers["Content-Type"] = "application/octet-stream"
    body = string.rep("swiftlike benchm", 256)
  end
end

function request()
  made = made + 1
  if kind == "LIST" or kind == "JSON" then
    local marker = string.format("o%08d", math.random(0, objects - 1001))
    local query = "?limit=1000&marker=" .. marker .. (kind == "JSON" and "&format=json" or "")
    return wrk.format("GET", account .. "/" .. container .. query, headers)
  end
  local name
  if kind == "GET" then
    name = string.format("o%08d", math.random(0, objects - 1))
  else
    name = string.format("r%s-%d-%08d", run, number, made)
  end
  return wrk.format(kind, account .. "/" .. container .. "/" .. name, headers, body)
end

function done(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.write(string.format('\n{"requests": %d, "duration_us": %d, "failed": %d, "p50_us": %d, "p99_us": %d, "bytes": %d}\n',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99), summary.bytes))
end
