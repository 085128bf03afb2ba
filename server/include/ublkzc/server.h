/* SPDX-License-Identifier: MIT */
/*
 * ublkzc/server.h - libublkzc-server: let an existing ublk server serve ublkzc's clients.
 *
 * A ublk server (on bare liburing, ublksrv, SPDK, a crate) keeps its queues, its storage and its
 * device. This library is the other half: it listens at /run/ublkzc/ublkbN.sock, speaks
 * docs/wire.md with programs that run under libublkzc.so, checks who they are and what they
 * hand over, keeps budgets, registers their memory with the driver (UBLK_F_SHMEM_ZC), and
 * tells where a matched request's data is:
 *
 *     struct ublkzc_server_options options = { .size = sizeof(options), .device = 3 };
 *     ublkzc_server_open(&options, &server);       the device is live, or about to be started
 *     ... poll ublkzc_server_fd(server) for reading, then:
 *     ublkzc_server_dispatch(server);
 *     ... per request:
 *     if (iod->op_flags & UBLKZC_SERVER_IO_MATCHED)
 *         data = ublkzc_server_find(server, iod->addr, len, UBLKZC_SERVER_INTO);
 *     if (!data)
 *         copy as for any request, and ublkzc_server_copied(server);
 *
 * examples/tiny-server.c is a whole one. libublkzc-server(3) says it at length.
 *
 * Units are bytes. Functions return 0 or a negative errno. No function throws, exits or raises a
 * signal; the library starts no thread and installs no signal handler.
 *
 * Threads: find(), copied() and stats() may be called by any thread at any time between open() and
 * close(). Everything else, for all servers of a process together, is called by one thread
 * at a time; if it does the storage's I/O through io_uring as well, open() too is called by it.
 * dispatch() looks at files and closes descriptors that clients sent: a hostile client
 * can make that slow. It then holds up registrations, and requests only if the same thread serves
 * them.
 */
#ifndef UBLKZC_SERVER_H
#define UBLKZC_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Of this header. Within one number, only what old callers do not see is added. */
#define UBLKZC_SERVER_VERSION 1

/* For those whose <linux/ublk_cmd.h> is older: the device's feature bit, and the bit in an io
 * descriptor's op_flags that says that addr names registered memory. */
#define UBLKZC_SERVER_F_SHMEM_ZC (1ULL << 19)
#define UBLKZC_SERVER_IO_MATCHED (1U << 19)

struct ublkzc_server;

/* What is to be registered; the fields are those of the driver's own command. */
struct ublkzc_server_buffer {
	uint64_t addr; /* in this process */
	uint64_t len;
	uint32_t flags; /* bit 0: the device only reads from it */
	uint32_t reserved;
};

/* Each 0: the default, which docs/wire.md has. Root and the server's own user have no limits of
 * users. */
struct ublkzc_server_limits {
	uint32_t max_clients;
	uint32_t max_user_clients;
	uint32_t max_buffers;	   /* of a client */
	uint32_t reserved;	   /* zero */
	uint64_t max_client_bytes; /* registered */
	uint64_t max_user_bytes;
	uint64_t max_bytes; /* of the device */
};

/* Flags of open(). */

/*
 * Pointers from find() are given to system calls only (read, write, io_uring, process_vm_readv),
 * which say EFAULT where a load or a store would be a signal. Then memory that programs
 * share themselves can be served too (SCAN), and a page that a client takes away from its
 * buffer is never allocated on the server's account. Without it only sealed memory that is not on
 * hugetlbfs is taken, in which every load and store works, whatever the client does.
 */
#define UBLKZC_SERVER_ONLY_SYSTEM_CALLS (1U << 0)
/*
 * The device has lived under a server that died, and may know memory that this one does not
 * (recovery). Nothing is asked of the driver before ublkzc_server_live(), because stock drivers
 * can wait for ever for it between START_ and END_USER_RECOVERY. Then that memory is
 * unregistered, and only then new memory registered. For what is not known, find() says NULL.
 */
#define UBLKZC_SERVER_TAKES_OVER (1U << 1)

struct ublkzc_server_options {
	size_t size;	 /* of this structure: sizeof */
	uint32_t device; /* N of /dev/ublkbN */
	uint32_t flags;
	const char *socket_dir; /* NULL: /run/ublkzc; made if it is not there */
	struct ublkzc_server_limits limits;
	void *arg; /* for what follows */
	/*
	 * UBLK_U_CMD_REG_BUF and UNREG_BUF are sent by the library, over an io_uring of its own; it
	 * needs CAP_SYS_ADMIN, as the driver does. With these two, both or none, the server sends
	 * them: return 0 and call ublkzc_server_answered() later, or from within, with the
	 * driver's result and @cookie; or a negative errno, and do not. Never from a
	 * thread that has requests of the device unfinished and waits for the command: the stock
	 * driver waits for those. @buffer lives until the answer.
	 */
	int (*reg)(void *arg, const struct ublkzc_server_buffer *buffer, void *cookie);
	int (*unreg)(void *arg, uint32_t index, void *cookie);
	/*
	 * Does @fd, which a client has open (but not by O_PATH), prove that it may use the device?
	 * 0 or a negative errno. NULL: if it is open on the disk, a partition, what is stacked on
	 * them, or a file on a file system there, by /sys and /proc/self/mountinfo.
	 */
	int (*may_use)(void *arg, int fd);
};

/*
 * Listen. Before the device is started, or while it runs. -EOPNOTSUPP: the device was added
 * without UBLKZC_SERVER_F_SHMEM_ZC, or the kernel has no such thing. -EINVAL: the options.
 * On an error nothing is left behind, and *@ret is NULL.
 */
int ublkzc_server_open(const struct ublkzc_server_options *options, struct ublkzc_server **ret);

/* Readable when dispatch() has something to do, also because time has passed. Stays the
 * library's; do nothing to it but poll. */
int ublkzc_server_fd(const struct ublkzc_server *s);

/* Do what there is to do, without waiting. */
int ublkzc_server_dispatch(struct ublkzc_server *s);

/* With UBLKZC_SERVER_TAKES_OVER: END_USER_RECOVERY has succeeded, the device serves again. */
void ublkzc_server_live(struct ublkzc_server *s);

/* The answer to reg() or unreg(): an index or 0, or a negative errno. */
void ublkzc_server_answered(struct ublkzc_server *s, void *cookie, int result);

enum ublkzc_server_direction {
	UBLKZC_SERVER_FROM, /* the request's data is read: the device's WRITE */
	UBLKZC_SERVER_INTO, /* ... is written: READ */
};

/*
 * The @len bytes that a matched request's io descriptor names with @addr. Valid until the
 * request is completed, which must be whole: the driver takes any completion for that. NULL:
 * they are not known (yet), or not all, or must not be written; copy them, as for a request that
 * did not match (with UBLK_F_USER_COPY the bytes of a matched request can be read and written,
 * too).
 */
void *ublkzc_server_find(const struct ublkzc_server *s, uint64_t addr, uint32_t len,
			 enum ublkzc_server_direction direction);

/* A request was copied. Programs' memory comes into being by and by, and is looked
 * for while requests are still copied. */
void ublkzc_server_copied(struct ublkzc_server *s);

struct ublkzc_server_stats {
	uint64_t clients; /* connected */
	uint64_t buffers; /* registered, or about to be */
	uint64_t bytes;	  /* in them */
	uint64_t refused; /* messages, and connections over a limit, since open() */
	uint64_t copied;  /* calls of copied() */
};

/* @size: sizeof(*@ret); what this library does not have is zero. */
void ublkzc_server_stats(const struct ublkzc_server *s, struct ublkzc_server_stats *ret,
			 size_t size);

/*
 * The device is about to be stopped: hang up on everybody, remove the socket, ask the driver for
 * nothing more. find() works until close().
 */
void ublkzc_server_stop(struct ublkzc_server *s);

/*
 * Unmap everything and free @s, when no request is served any more: the device is stopped, or this
 * process ends and leaves it to another. NULL is fine.
 */
void ublkzc_server_close(struct ublkzc_server *s);

/*
 * Lines about what is refused and why go to descriptor @fd, down to @level: 0 errors, 1
 * warnings, 2 each refusal; -1: none, as at first. For the whole process.
 */
void ublkzc_server_log(int fd, int level);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
