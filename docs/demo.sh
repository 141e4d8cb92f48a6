# For the commands on the pages of this folder. In the folder of the repository: . docs/demo.sh
# The demo has to run with its log in a file, because its mails are there: make run 2>demo.log

A=${A:-http://127.0.0.1:8080} LOG=${LOG:-demo.log} RUN=$(date +%s) SEEN=$(mktemp)
export TENANTRY_PROFILE=development
command -v tenantry >/dev/null || export PATH="$PWD/target/debug:$PATH"

# The first text with a name in the JSON that is read: field access_token
field() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

# The access token of a login: login acme admin@acme.example, or with a password as third argument
login() {
    curl -s "$A/api/v1/auth/login" -H 'Content-Type: application/json' \
        -d '{"tenant_slug":"'"$1"'","email":"'"$2"'","password":"'"${3:-demo-password}"'"}' | field access_token
}

# The access token of the demo's operator
operator() {
    curl -s "$A/api/v1/admin/login" -H 'Content-Type: application/json' \
        -d '{"email":"operator@tenantry.example","password":"demo-password"}' | field access_token
}

# The token of the newest mail to an address, by the page of its link; each token once: mailed verify-email ada@acme.example
mailed() {
    for _ in $(seq 40); do
        token=$(grep -F "to=\"$2\"" "$LOG" | grep -o "$1#token=[0-9A-Za-z_-]*" | cut -d = -f 2 | grep -vxFf "$SEEN" | tail -n 1)
        [ -z "$token" ] || break
        sleep 0.5
    done
    echo "$token" | tee -a "$SEEN"
}

# The code of an authenticator app, of the present 30 seconds or of the next: totp $SECRET, totp $SECRET 1
totp() {
    python3 - "$@" <<'PYTHON'
import base64, hmac, sys, time
step = int(time.time()) // 30 + int((sys.argv + ["0"])[2])
digest = hmac.digest(base64.b32decode(sys.argv[1]), step.to_bytes(8, "big"), "sha1")
at = digest[-1] & 15
print("%06d" % ((int.from_bytes(digest[at:at + 4], "big") & 0x7FFFFFFF) % 1000000))
PYTHON
}
