/* The wire between the host and the guest agent. PROTOCOL.md describes it; the host's codec is
 * src/bastide/hypervisor/frames.py. All integers are little-endian. */
#ifndef BASTIDE_PROTOCOL_H
#define BASTIDE_PROTOCOL_H

#include <stdint.h>

#define PROTOCOL_VERSION 2

/* Names of the virtserialports. */
#define PORT_AGENT "bastide.agent"
#define PORT_STDIO "bastide.stdio"
#define PORT_SHARES "bastide.shares"

/* A frame is a header and `length` bytes. A zero byte where a header should begin is skipped. */
struct frame {
	uint8_t type;
	uint8_t flags;
	uint16_t reserved;
	uint32_t stream;
	uint32_t length;
} __attribute__((packed));

#define FRAME_HEADER 12
/* Header and payload fit the 32 KiB that the kernel's virtio_console moves in one request. */
#define FRAME_PAYLOAD (32768 - FRAME_HEADER)
/* A control message longer than one frame is cut; all pieces but the last carry this flag. */
#define FLAG_MORE 1
#define MESSAGE_LIMIT (4u << 20)

/* Unacknowledged bytes that a sender may have under way on one stream, each direction. */
#define WINDOW_STDIN 65536
#define WINDOW_OUTPUT 262144

enum host_frame {
	H_HELLO = 1,	  /* nonce[16] */
	H_CONFIGURE = 2,  /* fields F_*: identity, root, network */
	H_PREPARE = 3,	  /* fields P_*: the main process, made but waiting */
	H_START = 4,	  /* lets it go */
	H_EXEC = 5,	  /* fields P_*: one more process, runs at once */
	H_STDIN = 6,	  /* bytes */
	H_STDIN_EOF = 7,  /* empty */
	H_WINDOW = 8,	  /* u32: so many more bytes of output may be sent */
	H_SIGNAL = 9,	  /* u32 */
	H_RESIZE = 10,	  /* u16 rows, u16 columns */
	H_CLOCK = 11,	  /* fields F_SEED, F_TIME */
	H_FILES = 12,	  /* fields F_HOSTS, F_HOSTNAME_FILE, F_RESOLV */
	H_NETWORK = 13,	  /* fields F_INTERFACE, F_SYSCTL */
	H_STATS = 14,	  /* empty; the answer is text */
	H_FREEZE = 15,	  /* empty: flush and freeze the writable file system, hold the volumes */
	H_THAW = 16,	  /* empty */
	H_SHUTDOWN = 17,  /* empty: end everything, flush, report the exit */
	H_MOUNT = 18,	  /* empty: the disks are there: mount them (a template per image) */
};

enum guest_frame {
	G_HELLO = 33,  /* nonce[16], u32 version, u32 phase */
	G_DONE = 34,   /* the answer to the request with this stream number */
	G_ERROR = 35,  /* u32 kind, text */
	G_STDOUT = 36, /* bytes */
	G_STDERR = 37, /* bytes */
	G_EXIT = 38,   /* u32 code, u32 killed for memory: the last frame of a stream */
	G_WINDOW = 39, /* u32: so many more bytes of stdin may be sent */
	G_OOM = 40,    /* memory has run out, for the first time; on the stdio port */
};

enum error_kind {
	E_INVALID = 1,	  /* the request is wrong */
	E_NOT_FOUND = 2,  /* no such file */
	E_GUEST = 3,	  /* the guest could not do it */
	E_CONFLICT = 4,	  /* not in this state */
	E_DENIED = 5,	  /* the file is there but cannot be executed */
};

/* A control message is a list of fields: u8 tag, u32 length, bytes. Lists are joined by NUL. */
enum field {
	F_SEED = 1,
	F_TIME = 2, /* u64 ns since 1970 */
	F_HOSTNAME = 3,
	F_DOMAINNAME = 4,
	F_HOSTS = 5,
	F_HOSTNAME_FILE = 6,
	F_RESOLV = 7,
	F_READONLY = 8,	  /* the root is read-only */
	F_TMPFS = 9,	  /* target NUL options; repeated */
	F_SHM_SIZE = 10,  /* u64 */
	F_INTERFACE = 11, /* lines of text, see PROTOCOL.md; repeated */
	F_SYSCTL = 12,	  /* name NUL value; repeated */
	F_DISKS = 13,	  /* u32: 0 no disks (the root is the initramfs), 1 base and upper */
	F_DISCARD = 14,	  /* the writable file system is thrown away at the end: do not flush it */
	F_PRIVILEGED = 15,
	F_SHARE = 16, /* a tree of the host's: number NUL target NUL `ro` or `rw`; repeated */
	F_LIMIT = 17, /* a file of the container's cgroup NUL what is written to it; repeated */
	F_MACHINE_ID = 18, /* the content of /etc/machine-id, where the image has one */

	P_ARGS = 32,
	P_ENV = 33,
	P_CWD = 34,
	P_USER = 35,
	P_GROUPS = 36,
	P_TERMINAL = 37, /* u16 rows, u16 columns */
	P_STDIN = 38,
	P_CAPABILITIES = 39, /* u64 mask */
	P_NO_NEW_PRIVILEGES = 40,
	P_RLIMIT = 41, /* u32 resource, u64 soft, u64 hard; repeated */
	P_BUILTIN = 42, /* args name a function of the agent, not a program */
	P_INIT = 43,	/* a reaping init stands before the process */
	P_OOM_SCORE = 44, /* i32 */
};

#endif
