package pods

import (
	"net"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

// expand replaces $(NAME) by the value of a variable that is known, and $$ by $, as
// kubelet does in args and env.
func expand(text string, variables map[string]string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		rest := text[i:]
		if strings.HasPrefix(rest, "$$") {
			out.WriteByte('$')
			i++
			continue
		}
		if end := strings.IndexByte(rest, ')'); strings.HasPrefix(rest, "$(") && end > 0 {
			if value, known := variables[rest[2:end]]; known {
				out.WriteString(value)
				i += end
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// mounts are where a container sees its volumes, longest path first, and what
// folders or files of the machine these are.
type mounts []struct{ at, source string }

func newMounts(container *corev1.Container, volumes map[string]string) mounts {
	var all mounts
	for _, m := range container.VolumeMounts {
		source := volumes[m.Name]
		if m.SubPath != "" {
			source += "/" + m.SubPath
		}
		all = append(all, struct{ at, source string }{strings.TrimRight(m.MountPath, "/"), source})
	}
	slices.SortStableFunc(all, func(a, b struct{ at, source string }) int { return len(b.at) - len(a.at) })
	return all
}

// rewrite replaces the paths below mounts in a text by those of the machine. A path
// begins where no name goes on and ends likewise: /csi is not in /csi-snapshots, nor
// in /var/csi.
func (all mounts) rewrite(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		found := false
		for _, m := range all {
			end := i + len(m.at)
			begins := i == 0 || !inName(text[i-1]) || strings.HasSuffix(text[:i], "://")
			if begins && strings.HasPrefix(text[i:], m.at) && (end == len(text) || text[end] == '/' || !inName(text[end])) {
				out.WriteString(m.source)
				i, found = end, true
				break
			}
		}
		if !found {
			out.WriteByte(text[i])
			i++
		}
	}
	return out.String()
}

func inName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/._-~", c) >= 0
}

// rewriteFile is rewrite for a file's content, if that is text; keys are not.
func (all mounts) rewriteFile(content []byte) []byte {
	if !utf8.Valid(content) || strings.Contains(string(content), "-----BEGIN ") {
		return content
	}
	return []byte(all.rewrite(string(content)))
}

// source is the machine's path of one that the container knows; empty if no mount
// has it.
func (all mounts) source(path string) string {
	for _, m := range all {
		if rest, ok := strings.CutPrefix(path, m.at); ok && (rest == "" || rest[0] == '/') {
			return m.source + rest
		}
	}
	return ""
}

// An address to listen at: all of a flag's value, or all of an argument.
var listenPattern = regexp.MustCompile(`^((?:--?[A-Za-z0-9_.-]+=)?)(?:|0\.0\.0\.0|\[::\]|127\.0\.0\.1|localhost):(\d+)$`)

// listenAt makes an address to listen at one of the pod's.
func listenAt(text, ip string) string {
	m := listenPattern.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	return m[1] + net.JoinHostPort(ip, m[2])
}
