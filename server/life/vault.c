/* SPDX-License-Identifier: MIT */
/* vault.c - see vault.h. */
#include "vault.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"

int vault_send(int sock, enum vault_op op, const struct vault_record *r, int fd)
{
	struct vault_message m = { .version = VAULT_VERSION, .op = op, .record = *r };
	int ret;

	do
		ret = wire_send(sock, &m, sizeof(m), fd);
	while (ret == -EINTR);
	return ret;
}

int vault_receive(int sock, struct vault_message *ret, int *ret_fd)
{
	int fds[WIRE_FDS_MAX];
	unsigned int nr_fds;
	long len;

	/*
	 * A process that dies without having read everything is a reset, which comes before what
	 * it has sent, and only once.
	 */
	do
		len = wire_recv(sock, ret, sizeof(*ret), fds, &nr_fds);
	while (len == -EINTR || len == -ECONNRESET);
	*ret_fd = nr_fds == 1 ? fds[0] : -1;
	if (len == 0)
		return 0;
	if (len == sizeof(*ret) && ret->version == VAULT_VERSION && nr_fds <= 1)
		return 1;
	for (unsigned int i = 0; i < nr_fds && nr_fds <= WIRE_FDS_MAX; i++)
		close(fds[i]);
	*ret_fd = -1;
	return len < 0 ? (int)len : -EPROTO;
}

/* The keeper sees the end of the connection, and that we are alive, and hangs up. */
static void await_its_end(int fd)
{
	char byte;
	ssize_t n = 0;

	if (fd < 0 || shutdown(fd, SHUT_WR) < 0)
		return;
	do
		n = recv(fd, &byte, 1, 0);
	while (n > 0 || (n < 0 && errno == EINTR));
}

void vault_lose(struct vault *v, int err)
{
	log_error(err, "the keeper of this server is gone: nobody will replace the server if it "
		       "dies (ublkzc recover then does it by hand)");
	await_its_end(v->fd);
	vault_close(v);
	v->lost = true;
}

static void tell(struct vault *v, enum vault_op op, const struct vault_record *r, int fd)
{
	int ret;

	if (!v || v->fd < 0)
		return;
	ret = vault_send(v->fd, op, r, fd);
	if (ret)
		vault_lose(v, ret);
}

void vault_put(struct vault *v, struct vault_record *r, int fd)
{
	if (v && !r->id)
		r->id = ++v->last_id;
	tell(v, VAULT_PUT, r, fd);
}

void vault_drop(struct vault *v, uint64_t id)
{
	struct vault_record r = { .id = id };

	if (id)
		tell(v, VAULT_DROP, &r, -1);
}

void vault_ready(struct vault *v, unsigned int number)
{
	struct vault_record r = { .kind = VAULT_STATE, .state = { .number = number } };

	tell(v, VAULT_READY, &r, -1);
}

void vault_try(struct vault *v)
{
	struct vault_record none = { 0 };

	tell(v, VAULT_TRY, &none, -1);
}

void vault_leave(struct vault *v)
{
	struct vault_record none = { 0 };

	tell(v, VAULT_LEAVE, &none, -1);
}

int vault_hear(struct vault *v, struct vault_record *ret)
{
	struct vault_message m;
	int fd = -1;
	int got = v->fd < 0 ? 0 : vault_receive(v->fd, &m, &fd);

	if (fd >= 0)
		close(fd);
	if (got == 1 && (m.op == VAULT_TRIED || m.op == VAULT_OUTCOME)) {
		*ret = m.record;
		return (int)m.op;
	}
	if (!v->lost)
		vault_lose(v, got < 0 ? got : -EPIPE);
	return 0;
}

int vault_next(struct vault *v, struct vault_record *ret, int *ret_fd)
{
	struct vault_message m;
	int got = vault_receive(v->fd, &m, ret_fd);

	if (got != 1)
		return got < 0 ? got : -EPROTO; /* the keeper ends with END, not by dying */
	if (m.op == VAULT_END)
		return 0;
	*ret = m.record;
	if (m.record.id > v->last_id)
		v->last_id = m.record.id;
	return 1;
}

void vault_close(struct vault *v)
{
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
}
