-- wrk asks for the paths /n/r00000/ to /n/rNNNNN/ in turn: `wrk … -- COUNT`.
local requests, next_one = {}, 0

function init(arguments)
    for number = 0, tonumber(arguments[1]) - 1 do
        requests[number] = wrk.format("GET", string.format("/n/r%05d/", number))
    end
end

function request()
    next_one = (next_one + 1) % (#requests + 1)
    return requests[next_one]
end
