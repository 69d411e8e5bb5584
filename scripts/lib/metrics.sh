# Sourced: reads Prometheus text. Each takes a file that holds the answer of /metrics.

# Sum over all series of metric $2 whose labels hold every further argument: metric_sum FILE millrace_flows 'core="0"'
metric_sum() {
    awk -v name="$2" -v l1="${3:-}" -v l2="${4:-}" '
        /^#/ { next }
        { series = $0; sub(/ [^ ]+$/, "", series); metric = series; sub(/\{.*/, "", metric) }
        metric == name && (l1 == "" || index(series, l1)) && (l2 == "" || index(series, l2)) { sum += $NF }
        END { printf "%d\n", sum }' "$1"
}

# One line per value of label $3 that is not zero: metric_by FILE millrace_packets_dropped_total reason
metric_by() {
    awk -v name="$2" -v label="$3" '
        index($0, name "{") == 1 && match($0, "[{,]" label "=\"[^\"]*\"") {
            key = substr($0, RSTART, RLENGTH); sub(/^[^"]*"/, "", key); sub(/"$/, "", key); sum[key] += $NF
        }
        END { for (key in sum) if (sum[key]) printf "%s %d\n", key, sum[key] }' "$1" | sort
}

# Quantile $3 (0…1) of histogram $2, in seconds: the upper bound of the bucket that holds it.
metric_quantile() {
    awk -v name="$2_bucket" -v q="$3" '
        index($0, name "{") == 1 && match($0, /le="[^"]*"/) {
            bound = substr($0, RSTART + 4, RLENGTH - 5)
            if (!(bound in count)) order[++n] = bound
            count[bound] += $NF
        }
        END {
            wanted = q * count["+Inf"]
            for (i = 1; i <= n; i++) if (count[order[i]] >= wanted) { print order[i]; exit }
        }' "$1"
}
