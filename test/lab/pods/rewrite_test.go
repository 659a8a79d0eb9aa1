package pods

import "testing"

func TestExpand(t *testing.T) {
	variables := map[string]string{"NAMESPACE": "rds-csi", "EMPTY": ""}
	for text, want := range map[string]string{
		"--lease-namespace=$(NAMESPACE)": "--lease-namespace=rds-csi",
		"$(NAMESPACE)/$(NAMESPACE)":      "rds-csi/rds-csi",
		"$(EMPTY)":                       "",
		"$(UNKNOWN)":                     "$(UNKNOWN)",
		"$$(NAMESPACE)":                  "$(NAMESPACE)",
		"$(NAMESPACE":                    "$(NAMESPACE",
		"a$b $":                          "a$b $",
	} {
		if got := expand(text, variables); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	all := mounts{{"/var/lib/kubelet", "/h/kubelet"}, {"/etc/rds-csi", "/v/arrays"}, {"/csi", "/tmp/v"}, {"/tmp", "/v/tmp"}}
	for text, want := range map[string]string{
		"--endpoint=unix:///csi/csi.sock":    "--endpoint=unix:///tmp/v/csi.sock",
		"--csi-address=/csi/csi.sock":        "--csi-address=/tmp/v/csi.sock",
		"/csi":                               "/tmp/v",
		"/csi-snapshots/csi/x":               "/csi-snapshots/csi/x",
		"/usr/csi":                           "/usr/csi",
		"a:/csi,b:/tmp/x":                    "a:/tmp/v,b:/v/tmp/x",
		"keyFile: /etc/rds-csi/keys/main\n":  "keyFile: /v/arrays/keys/main\n",
		`"/etc/rds-csi"`:                     `"/v/arrays"`,
		"--state-dir=/var/lib/kubelet/x/csi": "--state-dir=/h/kubelet/x/csi",
		"https://host/csi":                   "https://host/csi",
	} {
		if got := all.rewrite(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	key := "-----BEGIN OPENSSH PRIVATE KEY-----\n/csi/\n"
	if got := string(all.rewriteFile([]byte(key))); got != key {
		t.Errorf("a key became %q", got)
	}
	if got := all.source("/csi/csi.sock"); got != "/tmp/v/csi.sock" {
		t.Errorf("source: %q", got)
	}
	if got := all.source("/csi-x"); got != "" {
		t.Errorf("source: %q", got)
	}
}

func TestListenAt(t *testing.T) {
	for text, want := range map[string]string{
		":8443":                              "127.9.9.9:8443",
		"--metrics-bind-address=:8443":       "--metrics-bind-address=127.9.9.9:8443",
		"-http-endpoint=127.0.0.1:9809":      "-http-endpoint=127.9.9.9:9809",
		"--health-probe-bind-address=[::]:1": "--health-probe-bind-address=127.9.9.9:1",
		"0.0.0.0:80":                         "127.9.9.9:80",
		"--address=192.0.2.10:22":            "--address=192.0.2.10:22",
		"--image=registry:5000":              "--image=registry:5000",
		"--timeout=60s":                      "--timeout=60s",
	} {
		if got := listenAt(text, "127.9.9.9"); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
