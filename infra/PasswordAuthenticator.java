package lakehouse;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import javax.security.sasl.AuthenticationException;
import org.apache.hive.service.auth.PasswdAuthenticationProvider;

/** Lets into the Thrift server who knows the generated password of the state folder. */
public class PasswordAuthenticator implements PasswdAuthenticationProvider {

  public void Authenticate(String user, String password) throws AuthenticationException {
    String wanted = System.getenv("LAKEHOUSE_SQL_PASSWORD");
    if (wanted == null || password == null || !"lake".equals(user)
        || !MessageDigest.isEqual(
            wanted.getBytes(StandardCharsets.UTF_8), password.getBytes(StandardCharsets.UTF_8))) {
      throw new AuthenticationException("Wrong user or password for the SQL endpoint");
    }
  }
}
