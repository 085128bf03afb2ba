/* SPDX-License-Identifier: MIT */
/*
 * listener.c - accept, decode, judge, answer.
 *
 * A client is a connection.  Whatever goes wrong with it, from a malformed
 * message to a full socket, ends that connection and with it its uses of
 * buffers; nothing else.
 */
#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/closer.h"
#include "server/life/fault.h"
#include "server/life/state.h"
#include "server/life/worker.h"
#include "server/memory/resident.h"
#include "listener_internal.h"
#include "peer.h"

#define EVENTS_MAX 64

/* What epoll says when threads have done something. */
static char worker_done;

static time_t now_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

int listener_watch(struct listener *l, int fd, void *what)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = what };

	return epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* What is there before any client. */
static int watch_own(struct listener *l, int fd, void *what)
{
	int ret = listener_watch(l, fd, what);

	return ret ? log_error(ret, "epoll_ctl") : 0;
}

static int open_socket(struct listener *l, const char *dir, int type, mode_t mode,
		       enum vault_kind kind)
{
	struct vault_record record = { .kind = kind };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int err;
	int fd;

	err = state_make_dir(dir);
	if (err)
		return log_error(err, "%s", dir);
	snprintf(addr.sun_path, sizeof(addr.sun_path), WIRE_SOCKET_FORMAT, dir, l->device);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return log_error(-errno, "socket");
	unlink(addr.sun_path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(addr.sun_path, mode) < 0 || listen(fd, SOMAXCONN) < 0) {
		err = -errno;
		close(fd);
		return log_error(err, "%s", addr.sun_path);
	}
	vault_put(l->vault, &record, fd);
	return fd;
}

int listener_open(struct listener *l, const char *dir, const char *legacy_dir)
{
	int ret = 0;

	l->attachments = (struct attachments){
		.buffers = l->buffers,
		.max_bytes = l->limits.max_client_bytes,
		.attached = listener_attached,
		.arg = l,
		.vault = l->vault,
	};
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0)
		return log_error(-errno, "epoll_create1");
	/* An inherited one as well: clients are told that its process is this one. */
	if (l->socket < 0)
		l->socket = open_socket(l, dir, SOCK_SEQPACKET, 0666, VAULT_SOCKET);
	else if (listen(l->socket, SOMAXCONN) < 0)
		return log_error(-errno, "listen");
	if (l->socket < 0)
		return l->socket;
	ret = worker_fd();
	if (ret < 0)
		return log_error(ret, "eventfd");
	ret = watch_own(l, ret, &worker_done);
	if (!ret)
		ret = watch_own(l, l->socket, &l->socket);
	if (ret || !legacy_dir)
		return ret;
	if (l->legacy < 0)
		l->legacy = open_socket(l, legacy_dir, SOCK_STREAM, 0600, VAULT_LEGACY_SOCKET);
	if (l->legacy < 0)
		return l->legacy;
	return watch_own(l, l->legacy, &l->legacy);
}

/* ---- clients ---- */

/*
 * The keeper has the connection too, so closing our descriptor alone would neither
 * end it nor take it out of the epoll set.
 */
void listener_disconnect(struct listener *l, struct client *c)
{
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	if (c->legacy_lease)
		close(c->fd);
	else
		closer_hang_up(c->uid, c->fd);
}

static void watch_sockets(struct listener *l, bool watch)
{
	int *const sockets[] = { &l->socket, &l->legacy };

	for (unsigned int i = 0; i < 2; i++)
		if (*sockets[i] >= 0 && watch)
			listener_watch(l, *sockets[i], sockets[i]);
		else if (*sockets[i] >= 0)
			epoll_ctl(l->epoll, EPOLL_CTL_DEL, *sockets[i], NULL);
}

static void close_socket(struct listener *l, int fd)
{
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, fd, NULL);
	shutdown(fd, SHUT_RDWR);
	close(fd);
}

static void free_client(struct listener *l, struct client *c)
{
	struct client **link = &l->first;

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	l->nr_clients--;
	buffers_forget_client(l->buffers, c);
	scan_forget(&c->scan);
	listener_leave_user(l, c);
	attach_forget_asker(&l->attachments, c);
	vault_drop(l->vault, c->id);
	listener_disconnect(l, c);
	if (c->pidfd >= 0)
		close(c->pidfd);
	free(c);
}

static void sweep(struct listener *l)
{
	struct client *next;
	time_t now = now_seconds();

	for (struct client *c = l->first; c; c = next) {
		next = c->next;
		if (!c->greeted && !c->legacy_lease && now > c->deadline)
			hang_up(c);
		if (c->closing)
			free_client(l, c);
	}
	listener_sweep_users(l);
}

/*
 * Out of descriptors: a connection that waits would wake us for ever, so for a while it
 * does not.  Whoever has not said HELLO goes first.
 */
static void make_room(struct listener *l)
{
	if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
		return;
	if (listener_may_say())
		log_error(-errno, "a connection has to wait");
	for (struct client *c = l->first; c; c = c->next)
		if (!c->greeted)
			hang_up(c);
	watch_sockets(l, false);
	l->deaf_until = now_seconds() + 1;
}

struct client *listener_new_client(struct listener *l, int fd, const struct ucred *cred)
{
	struct client *c = l->nr_clients < l->limits.max_clients ? calloc(1, sizeof(*c)) : NULL;

	if (!c)
		return NULL;
	c->uid = cred->uid;
	if (!listener_join_user(l, c) || listener_watch(l, fd, c) < 0) {
		if (c->user)
			listener_leave_user(l, c);
		free(c);
		return NULL;
	}
	c->fd = fd;
	c->pid = cred->pid;
	c->pidfd = peer_pidfd(fd);
	c->number = l->numbered++;
	c->scan.buffers = l->buffers;
	c->deadline = now_seconds() + l->limits.hello_timeout;
	c->next = l->first;
	l->first = c;
	l->nr_clients++;
	return c;
}

static void accept_one(struct listener *l, int from)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	struct client *c = NULL;
	int fd = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		make_room(l);
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		c = listener_new_client(l, fd, &cred);
	if (!c) {
		l->refused++;
		closer_hang_up(cred.uid, fd);
		return;
	}
	c->legacy = from == l->legacy;
	if (listener_judge_user(l, c)) {
		l->refused++;
		hang_up(c);
	}
	/* The legacy socket proves nothing, so it is for root and ourselves. */
	if (c->legacy && cred.uid != 0 && cred.uid != geteuid())
		hang_up(c);
}

void listener_reply(struct listener *l, struct client *c, const struct wire_reply *reply)
{
	bool list = reply->type == WIRE_ATTACHED || reply->type == WIRE_CLIENTS;

	/* The end of a list is no refusal. */
	if (reply->status && !list) {
		l->refused++;
		c->refused++;
		c->why = reply->reason;
	}
	/* A client that does not read its answers is not waited for. */
	if (wire_send(c->fd, reply, sizeof(*reply), -1) < 0)
		hang_up(c);
}

void listener_refuse(struct listener *l, struct client *c, const struct wire_request *req, int err,
		     enum wire_reason reason)
{
	struct wire_reply reply;

	wire_reply_init(&reply, req->type, req->seq);
	reply.status = err;
	reply.reason = (uint16_t)reason;
	listener_reply(l, c, &reply);
	/* What is not logged anyhow uses up nobody's lines. */
	if (log_enabled(LOG_INFO) && listener_may_say())
		log_line(LOG_INFO, "process %d refused: %s", (int)c->pid, wire_reason_text(reason));
}

int listener_add_memory(struct listener *l, struct client *c, const struct buffer_request *req,
			enum wire_reason *ret_reason)
{
	int ret = listener_judge_memory(req, ret_reason);

	if (!ret && l->sealed_only && resident_huge_page(req->fd)) {
		*ret_reason = WIRE_NO_FEATURE;
		ret = -EOPNOTSUPP;
	}
	if (!ret)
		ret = listener_judge_budget(l, c, ret_reason);
	if (ret)
		return ret;
	c->nr_buffers++;
	ret = buffers_add(l->buffers, req, ret_reason);
	if (ret)
		c->nr_buffers--;
	if (ret == -EDQUOT)
		listener_say_limit(l, c, &c->account);
	return ret;
}

static void handle_hello(struct listener *l, struct client *c, const struct wire_request *req,
			 int fd)
{
	enum wire_reason reason;
	struct wire_reply reply;
	int ret;

	ret = l->judge_proof(l->host, l->device, fd, &reason);
	if (ret) {
		listener_refuse(l, c, req, ret, reason);
		hang_up(c);
		return;
	}
	c->greeted = true;
	c->may_write = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
	listener_note(l, c, c->fd);
	FAULT_POINT("greeted");
	wire_reply_init(&reply, req->type, req->seq);
	reply.device = l->device;
	reply.max_buffers = l->limits.max_buffers;
	reply.max_bytes = l->limits.max_client_bytes;
	reply.features = WIRE_FEATURE_RESIDENT | WIRE_FEATURE_DECLINES;
	listener_reply(l, c, &reply);
}

static void handle_add(struct listener *l, struct client *c, const struct wire_request *req, int fd)
{
	struct buffer_request add = {
		.fd = fd,
		.offset = req->offset,
		.len = req->length,
		.read_only = (req->flags & WIRE_ADD_READ_ONLY) != 0,
		.client = c,
		.account = &c->account,
		.owner = c->id,
		.seq = req->seq,
	};
	enum wire_reason reason = WIRE_NOT_WRITABLE;
	int ret = -EACCES;

	/* The device only reads from such memory, so it is for writing to the device. */
	if (!add.read_only || c->may_write)
		ret = listener_add_memory(l, c, &add, &reason);
	if (ret)
		listener_refuse(l, c, req, ret, reason);
}

static void handle_remove(struct listener *l, struct client *c, const struct wire_request *req)
{
	struct wire_reply reply;
	int ret = buffers_remove(l->buffers, c, req->index);

	if (ret) {
		listener_refuse(l, c, req, ret, WIRE_NO_SUCH_BUFFER);
		return;
	}
	c->nr_buffers--;
	wire_reply_init(&reply, req->type, req->seq);
	reply.index = req->index;
	listener_reply(l, c, &reply);
}

static void handle_request(struct listener *l, struct client *c, const struct wire_request *req,
			   int fd)
{
	struct wire_reply reply;

	if (admin_requested(l, c, req))
		return;
	if ((req->type == WIRE_HELLO) == c->greeted) {
		listener_refuse(l, c, req, -EPROTO, WIRE_HELLO_FIRST);
		hang_up(c);
		return;
	}
	switch (req->type) {
	case WIRE_HELLO:
		handle_hello(l, c, req, fd);
		break;
	case WIRE_ADD:
		handle_add(l, c, req, fd);
		break;
	case WIRE_REMOVE:
		handle_remove(l, c, req);
		break;
	case WIRE_SCAN:
		scan_requested(l, c, req);
		break;
	case WIRE_RESIDENT: /* a hint: where exactly is seen when we look */
		buffers_look_again(l->buffers, c, req->index);
		break;
	case WIRE_PING:
		wire_reply_init(&reply, req->type, req->seq);
		listener_reply(l, c, &reply);
		break;
	}
}

long listener_receive(struct listener *l, struct client *c, void *buf, size_t size,
		      struct wire_fds *ret_fds)
{
	ret_fds->nr = 0;
	ret_fds->cut = 0;
	if (closer_full(c->uid)) {
		l->refused++;
		if (listener_may_say())
			log_line(LOG_WARN, "user %u: what it sent cannot be closed", c->uid);
		return -EBUSY;
	}
	return wire_recv_all(c->fd, buf, size, ret_fds);
}

/* What is malformed ends the connection; what is only newer than we are does not. */
static void turn_down(struct listener *l, struct client *c, const struct wire_request *req, int err,
		      enum wire_reason reason)
{
	bool newer = err == -EOPNOTSUPP;

	if (newer && !c->greeted) {
		err = -EPROTO;
		reason = WIRE_HELLO_FIRST;
	}
	listener_refuse(l, c, req, err, reason);
	if (!newer || !c->greeted)
		hang_up(c);
}

static void serve_client(struct listener *l, struct client *c)
{
	char buf[sizeof(struct wire_request) + 1];
	struct wire_fds got;
	struct wire_request req;
	enum wire_reason reason;
	long len = listener_receive(l, c, buf, sizeof(buf), &got);
	int ret;

	if (len == -EAGAIN || len == -EINTR)
		return;
	/* Also an empty record, which may have brought descriptors all the same. */
	if (len <= 0) {
		hang_up(c);
		closer_close(c->uid, got.fds, got.nr);
		return;
	}
	ret = wire_request_decode(buf, (size_t)len, got.cut ? WIRE_FDS_ROOM : got.nr, &req,
				  &reason);
	if (ret)
		turn_down(l, c, &req, ret, reason);
	else
		handle_request(l, c, &req, got.nr ? got.fds[0] : -1);
	closer_close(c->uid, got.fds, got.nr);
}

/* ---- all together ---- */

void listener_answer(void *arg, void *client, uint32_t seq, int status, enum wire_reason reason,
		     uint32_t number)
{
	struct listener *l = arg;
	struct client *c = client;
	struct wire_reply reply;

	if (!c)
		return;
	/* What was refused must not count against its client. */
	if (status)
		c->nr_buffers--;
	if (reason == WIRE_OVER_BUDGET)
		listener_say_limit(l, c, &c->account);
	if (c->legacy_lease)
		return; /* our predecessor has answered it */
	if (c->legacy) {
		legacy_answer(l, c, status, number);
		return;
	}
	wire_reply_init(&reply, WIRE_ADD, seq);
	reply.status = status;
	reply.reason = (uint16_t)reason;
	reply.index = status ? 0 : number;
	listener_reply(l, c, &reply);
}

void listener_run(struct listener *l)
{
	struct epoll_event events[EVENTS_MAX];
	int nr = epoll_wait(l->epoll, events, EVENTS_MAX, 0);

	for (int i = 0; i < nr; i++) {
		struct client *c = events[i].data.ptr;

		if (events[i].data.ptr == &worker_done)
			worker_collect();
		else if (events[i].data.ptr == &l->socket)
			accept_one(l, l->socket);
		else if (events[i].data.ptr == &l->legacy)
			accept_one(l, l->legacy);
		else if (c->closing || c->legacy_lease)
			hang_up(c);
		else if (c->legacy)
			legacy_serve(l, c);
		else
			serve_client(l, c);
	}
	if (l->deaf_until && now_seconds() > l->deaf_until) {
		l->deaf_until = 0;
		watch_sockets(l, true);
	}
	sweep(l);
	attach_tick(&l->attachments, now_seconds());
}

void listener_close(struct listener *l)
{
	listener_upgraded(l, -ESHUTDOWN, WIRE_STOPPING);
	while (l->first)
		free_client(l, l->first);
	attach_close(&l->attachments);
	listener_free_users(l);
	if (l->socket >= 0)
		close_socket(l, l->socket);
	if (l->legacy >= 0)
		close_socket(l, l->legacy);
	if (l->epoll >= 0)
		close(l->epoll);
	l->socket = l->legacy = l->epoll = -1;
}
