/* drain PROCESSES: the purchase queue's events become orders, in batches, one statement for each.
 *
 * The yardstick: what two well-made C libraries make of the same work, without any of flashsale's
 * guards. An event that cannot be read is rejected; any other failure ends the process, and what
 * it had not acknowledged comes again.
 */
#include "batch.h"

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHANNEL = 1, PREFETCH = 2000, LINGER_MICROSECONDS = 10000, IDLE_MICROSECONDS = 200000 };

static volatile sig_atomic_t stopping;

static void stop(int signal)
{
    (void)signal;
    stopping = 1;
}

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    if (!value)
        errx(2, "%s is not set", name);
    return value;
}

static void check(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        errx(1, "%s: %s", what, amqp_error_string2(reply.library_error));
}

static amqp_connection_state_t consume(void)
{
    char *url = strdup(setting("RABBITMQ_URL"));
    struct amqp_connection_info node;
    if (amqp_parse_url(url, &node) != AMQP_STATUS_OK)
        errx(2, "RABBITMQ_URL is no AMQP URL");
    amqp_connection_state_t broker = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(broker);
    if (!socket || amqp_socket_open(socket, node.host, node.port))
        errx(1, "RabbitMQ is not reachable");
    check(amqp_login(broker, node.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, node.user,
                     node.password),
          "login");
    amqp_channel_open(broker, CHANNEL);
    check(amqp_get_rpc_reply(broker), "channel");
    amqp_basic_qos(broker, CHANNEL, 0, PREFETCH, 0);
    check(amqp_get_rpc_reply(broker), "prefetch");
    amqp_basic_consume(broker, CHANNEL, amqp_cstring_bytes(setting("PURCHASE_QUEUE")),
                       amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(broker), "consume");
    free(url);
    return broker;
}

/* Takes the next delivery; false where none comes in time. `last` is the last one in the batch. */
static bool take(amqp_connection_state_t broker, struct batch *batch, uint64_t *last,
                 long microseconds)
{
    struct timeval timeout = {0, microseconds};
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(broker);
    amqp_rpc_reply_t reply = amqp_consume_message(broker, &envelope, &timeout, 0);
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION &&
        reply.library_error == AMQP_STATUS_TIMEOUT)
        return false;
    check(reply, "delivery");
    if (batch_add(batch, envelope.message.body.bytes, envelope.message.body.len))
        *last = envelope.delivery_tag;
    else
        amqp_basic_reject(broker, CHANNEL, envelope.delivery_tag, 0);
    amqp_destroy_envelope(&envelope);
    return true;
}

static void drain(void)
{
    static struct batch batch;
    PGconn *database = PQconnectdb(setting("DATABASE_URL"));
    if (PQstatus(database) != CONNECTION_OK)
        errx(1, "%s", PQerrorMessage(database));
    batch_prepare(database);
    amqp_connection_state_t broker = consume();
    while (!stopping) {
        uint64_t last = 0;
        batch_clear(&batch);
        bool arrived = take(broker, &batch, &last, IDLE_MICROSECONDS);
        while (arrived && batch.sale_ids.rows < BATCH_SIZE)
            arrived = take(broker, &batch, &last, LINGER_MICROSECONDS);
        if (!batch.sale_ids.rows)
            continue;
        batch_write(database, &batch);
        if (amqp_basic_ack(broker, CHANNEL, last, 1) != AMQP_STATUS_OK)
            errx(1, "RabbitMQ took no acknowledgement");
    }
    check(amqp_connection_close(broker, AMQP_REPLY_SUCCESS), "close");
    amqp_destroy_connection(broker);
    PQfinish(database);
}

int main(int argc, char **argv)
{
    int processes = argc > 1 ? atoi(argv[1]) : 3;
    /* Not restarted: wait() below has to return when the signal comes. */
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    for (int i = 0; i < processes; i++)
        if (!fork()) {
            drain();
            return 0;
        }
    int status, failed = 0;
    while (!stopping && wait(&status) > 0)
        failed |= status;
    stopping = 1;
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM); /* its group is its own */
    while (wait(&status) > 0)
        failed |= status;
    return failed ? 1 : 0;
}
