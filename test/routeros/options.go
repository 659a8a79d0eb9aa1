package routeros

import (
	"slices"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/array"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// The array's state as seen from outside.
type (
	// Disk is one item of /disk.
	Disk = array.Disk
	// File is one item of /file.
	File = array.File
	// Pool is a mounted file system.
	Pool = array.Pool
	// Subvolume is a btrfs subvolume.
	Subvolume = array.Subvolume
	// Backend is told of every change to files and exports.
	Backend = array.Backend
	// Event is what a Backend is told.
	Event = array.Event
	// EventKind names an Event.
	EventKind = array.EventKind
	// Phrases are failure texts without a known recording.
	Phrases = array.Phrases
	// JSONStyle is how :serialize writes numbers and empty texts.
	JSONStyle = script.JSONStyle
	// Step is one command of a script.
	Step = script.Step
)

// The events a Backend is told.
const (
	ExportOn     = array.ExportOn
	ExportOff    = array.ExportOff
	ExportChange = array.ExportChange
	ExportResize = array.ExportResize
	FileCreate   = array.FileCreate
	FileResize   = array.FileResize
	FileCopy     = array.FileCopy
	FileRemove   = array.FileRemove
	FileRename   = array.FileRename
)

// DefaultPhrases are the failure texts used unless Settings has others.
func DefaultPhrases() Phrases { return array.DefaultPhrases() }

// Unquote reads src as one double quoted word with the simulator's own lexer,
// as a script without variables would: an unescaped $name vanishes. It reports
// false unless that word is the whole of src.
func Unquote(src string) (value string, ok bool) { return script.Unquote(src) }

// Clock is the time the array lives in; k8s.io/utils/clock's types fit.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// User may log in. Policies are RouterOS's: ssh, read, write, test.
type User struct {
	Name     string
	Password string // empty: no password login
	Keys     []gossh.PublicKey
	// AnyKey accepts every RSA or ed25519 key.
	AnyKey   bool
	Policies []string
}

func (u User) may(policy string) bool { return slices.Contains(u.Policies, policy) }

// ExitStatus is what a failed command exits with; it tells a client nothing.
type ExitStatus string

// The exit statuses of failed commands.
const (
	ExitAlternate ExitStatus = "alternate" // 0, 1, 0, 1, …
	ExitZero      ExitStatus = "zero"
	ExitOne       ExitStatus = "one"
)

// Settings are what may be changed while the array runs.
type Settings struct {
	// Latency of each command, before it runs.
	Latency time.Duration `json:"latency"`
	// ExitStatus of failed commands; alternate when empty.
	ExitStatus ExitStatus `json:"exitStatus"`
	// Width of the terminal in columns; 80 when 0, as without a terminal.
	Width int `json:"width"`
	// WrapPut breaks what :put writes at Width, too.
	WrapPut bool `json:"wrapPut"`
	// JSON is the style of :serialize.
	JSON JSONStyle `json:"json"`
	// LocateErrors appends "(/disk/set; line 1)" to run-time errors.
	LocateErrors bool `json:"locateErrors"`
	// ShowIdleExport prints nvme-tcp-server-* also while the export is off.
	ShowIdleExport bool `json:"showIdleExport"`
	// FalseFlags puts flags that are not set into as-value as false.
	FalseFlags bool `json:"falseFlags"`
	// RoundedFileSize gives file-size as "1024.0GiB" in as-value, too.
	RoundedFileSize bool `json:"roundedFileSize"`
	// StopOnDisconnect ends a script when its channel is closed. A real array
	// may let it run on, which is the default.
	StopOnDisconnect bool `json:"stopOnDisconnect"`
	// WholeScripts runs one script at a time. A real array may let those of two
	// connections interleave between statements, which is the default.
	WholeScripts bool `json:"wholeScripts"`
	// AnswerKeepalive answers keepalive@openssh.com; by default it is met
	// with silence.
	AnswerKeepalive bool `json:"answerKeepalive"`
	// RefuseLogins refuses every key and password.
	RefuseLogins bool `json:"refuseLogins"`
	// MaxSessions is the number of connections; 20 when 0.
	MaxSessions int `json:"maxSessions"`
	// CutProbability cuts the connection at a random point of that share of
	// the commands.
	CutProbability float64 `json:"cutProbability"`
	// Version as /system/resource gives it: "7.24.4 (stable)" when empty.
	Version string `json:"version"`
	// Phrases replaces failure texts without a known recording.
	Phrases *Phrases `json:"phrases,omitempty"`
}

func (s Settings) withDefaults() Settings {
	if s.ExitStatus == "" {
		s.ExitStatus = ExitAlternate
	}
	if s.Width == 0 {
		s.Width = 80
	}
	if s.MaxSessions == 0 {
		s.MaxSessions = 20
	}
	if s.Version == "" {
		s.Version = "7.24.4 (stable)"
	}
	return s
}

// HostKeyType is the algorithm of a generated host key.
type HostKeyType string

// The host keys RouterOS can have.
const (
	RSA     HostKeyType = "rsa"
	Ed25519 HostKeyType = "ed25519"
)

// Options make a Server. The zero value is a usable array with one user,
// admin, who may do everything with any key.
type Options struct {
	Settings
	// HostKey is generated when nil, of HostKeyType (RSA when empty).
	HostKey     gossh.Signer
	HostKeyType HostKeyType
	// MACs limits the message authentication codes; nil offers the usual.
	MACs  []string
	Users []User
	// Board and Identity as /system gives them.
	Board, Identity string
	Clock           Clock
	Backend         Backend
	// Seed of the random cuts.
	Seed uint64
	// LogLimit is how many commands the log keeps; 10000 when 0.
	LogLimit int
}

func (o Options) withDefaults() Options {
	o.Settings = o.Settings.withDefaults()
	if o.HostKeyType == "" {
		o.HostKeyType = RSA
	}
	if len(o.Users) == 0 {
		o.Users = []User{{Name: "admin", AnyKey: true, Policies: []string{"ssh", "read", "write", "test"}}}
	}
	if o.Board == "" {
		o.Board = "RDS2216"
	}
	if o.Identity == "" {
		o.Identity = "MikroTik"
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.LogLimit == 0 {
		o.LogLimit = 10000
	}
	return o
}
